(** * Counter-machines: each hypothesis is needed

    For each hypothesis of Theorem 1 a machine that meets all the others and has no monitor with this map;
    those where both modes do the same serve Theorem 3 too. *)

From Coq Require Import List Arith Lia.
Require Import Popek.Machine Popek.ThirdGeneration Popek.Classes Popek.Map.
Require Import Popek.Premises Popek.Monitor Popek.Runs Popek.Theorem1 Popek.Theorem3.
Require Import Popek.Interrupts Popek.HeldOff.
Require Import Popek.Instances.PaperMachine Popek.Instances.SilentDrop.
Import ListNotations.

(** ** Sensitive, but not privileged: the paper's machine with one strap off *)

(** Control sensitive alone: DROP.  ([SilentDrop.no_monitor_of_theorem_1] says that no monitor is.) *)
Theorem control_needed :
  (forall i, location_sensitive silent_drop i \/ mode_sensitive silent_drop i -> privileged silent_drop i) /\
  ~ virtual_machine_monitor silent_drop.
Proof.
  split; [| exact no_monitor_of_theorem_1]. intros i Sens.
  destruct (is_strapped i) eqn:Has.
  - destruct (all_but_drop i) eqn:On; [now apply strapped_privileged |].
    destruct i; try discriminate. exfalso. destruct Sens as [Sens | Sens]; revert Sens;
      [apply not_location | apply not_mode]; red; cbn; intros; inversion H; inversion H0; now subst.
  - exfalso. apply (unstrapped_innocuous all_but_drop i Has). now right.
Qed.

(** Location sensitive alone: LRA. *)
Definition all_but_lra (i : op) : bool := match i with LRA _ _ => false | _ => true end.
Definition silent_lra : third_generation := pg all_but_lra.

Lemma lra_stores m r v p a c v1 q1 : does (LRA a c) m r v p = Some (v1, q1) ->
  v1 = set a (Word supervisor (l r + c) 0 0) v /\ q1 = Psw m (p + 1) r.
Proof.
  cbn [does]. destruct (c <? length v); [| discriminate]. intros H. now apply store_some in H.
Qed.

Definition locating (m : mode) : storage_state cell :=
  St [Word user 8 0 0; Word supervisor 0 0 0; Word supervisor 0 0 0] m 0 (Rel 0 3).

Theorem location_needed :
  (forall i, control_sensitive silent_lra i \/ mode_sensitive silent_lra i -> privileged silent_lra i) /\
  ~ virtual_machine_monitor silent_lra /\ ~ hybrid_monitor silent_lra.
Proof.
  split; [| split].
  - intros i Sens. destruct (is_strapped i) eqn:Has.
    + destruct (all_but_lra i) eqn:On; [now apply strapped_privileged |].
      destruct i; try discriminate. exfalso. destruct Sens as [Sens | Sens]; revert Sens;
        [apply not_control | apply not_mode]; red; intros m r.
      * intros v p v1 q1 H. apply lra_stores in H. now destruct H as [-> ->].
      * intros r' v p v1 q1 v2 q2 H H'. apply lra_stores in H, H'. now destruct H as [-> ->], H' as [-> ->].
    + exfalso. apply (unstrapped_innocuous all_but_lra i Has). destruct Sens; red; tauto.
  - intros V. destruct (monitor_needs silent_lra small_part V eq_refl (locating user) _ eq_refl eq_refl
      (ex_intro _ (LRA 0 0) (conj eq_refl eq_refl))) as [H _]. discriminate H.
  - intros V. destruct (hybrid_needs silent_lra small_part V eq_refl (locating user) _ eq_refl eq_refl
      (ex_intro _ (LRA 0 0) (conj eq_refl eq_refl))) as [H _]. discriminate H.
Qed.

(** Mode sensitive alone: GMODE. *)
Definition all_but_gmode (i : op) : bool := match i with GMODE _ => false | _ => true end.
Definition silent_gmode : third_generation := pg all_but_gmode.

Definition asking (m : mode) : storage_state cell :=
  St [Word user 7 0 0; Word supervisor 0 0 0; Word supervisor 0 0 0] m 0 (Rel 0 3).

Theorem mode_needed :
  (forall i, control_sensitive silent_gmode i \/ location_sensitive silent_gmode i -> privileged silent_gmode i) /\
  ~ virtual_machine_monitor silent_gmode.
Proof.
  split.
  - intros i Sens. destruct (is_strapped i) eqn:Has.
    + destruct (all_but_gmode i) eqn:On; [now apply strapped_privileged |].
      destruct i; try discriminate. exfalso. destruct Sens as [Sens | Sens]; revert Sens;
        [apply not_control | apply not_location]; red; cbn [does]; intros m r.
      * intros v p v1 q1 H. apply store_some in H. now destruct H as (_ & -> & ->).
      * intros r' v p v1 q1 v2 q2 H H'. apply store_some in H, H'.
        now destruct H as (_ & -> & ->), H' as (_ & -> & ->).
    + exfalso. apply (unstrapped_innocuous all_but_gmode i Has). destruct Sens; red; tauto.
  - intros V. destruct (monitor_needs silent_gmode small_part V eq_refl (asking supervisor) _ eq_refl eq_refl
      (ex_intro _ (GMODE 0) (conj eq_refl eq_refl))) as [H _]. discriminate H.
Qed.

(** ** Machines of one instruction *)

Definition advanced (S : storage_state cell) : storage_state cell := St (E S) (M S) (P S + 1) (R S).

Definition only (x : storage_state cell -> ending cell)
    (size : forall (i : unit) S T, x S = Completes T -> length (E T) = length (E S)) : third_generation := {|
  word := cell; word_dec := cell_dec; blank := Word supervisor 0 0 0;
  of_psw := cell_of; to_psw := psw_in; to_of := psw_in_cell_of;
  opcode := unit; decode := fun _ => tt; execute := fun _ => x; keeps_size := size
|}.

(** What completes by going on to the next instruction is innocuous and confined, wherever it may trap. *)
Section Advancing.
  Variable x : storage_state cell -> ending cell.
  Hypothesis advances : forall S T, x S = Completes T -> T = advanced S.

  Lemma advancing_size (i : unit) S T : x S = Completes T -> length (E T) = length (E S).
  Proof. intros X. now rewrite (advances _ _ X). Qed.

  Lemma advancing_innocuous i : innocuous (only x advancing_size) i.
  Proof.
    intros [(S & T & X & Ch) | [(S & T & S' & T' & [Hp Hv] & _ & X & X' & D) | (S & T & T' & X & X' & D)]];
      apply advances in X; subst T.
    - now destruct Ch.
    - apply advances in X'. subst T'. unfold differ in D. cbn in *. rewrite Hp, Hv in D. now destruct D.
    - apply advances in X'. subst T'. unfold differ in D. cbn in *. now destruct D.
  Qed.

  Lemma advancing_confined i S T : execute (only x advancing_size) i S = Completes T ->
    leaves_alone (only x advancing_size) S T.
  Proof. intros X. apply advances in X. subst T. now split. Qed.
End Advancing.

Definition somewhere (m : mode) : storage_state cell :=
  St [Word user 0 0 0; Word user 0 0 0; Word user 0 0 0] m 0 (Rel 0 3).

(** R.  A reference that is not relocated: it memory-traps in the lowest location, and nowhere else. *)
Definition probe_lowest (S : storage_state cell) : ending cell :=
  match l (R S) with 0 => Traps memory_trap | _ => Completes (advanced S) end.
Lemma probe_lowest_advances S T : probe_lowest S = Completes T -> T = advanced S.
Proof. unfold probe_lowest. destruct (l (R S)); intros H; now inversion H. Qed.
Definition lowest : third_generation := only probe_lowest (advancing_size _ probe_lowest_advances).

Theorem references_needed :
  (forall i, sensitive lowest i -> privileged lowest i) /\ traps_in_user_too lowest /\ confined lowest /\
  ~ virtual_machine_monitor lowest /\ ~ hybrid_monitor lowest.
Proof.
  repeat split.
  - now apply advancing_innocuous in H.
  - now apply advancing_innocuous in H.
  - intros i S T S' _ _ _ X. cbn in X. unfold probe_lowest in X. now destruct (l (@R cell S')).
  - now rewrite (probe_lowest_advances S T H0).
  - now rewrite (probe_lowest_advances S T H0).
  - intros V. destruct (monitor_needs lowest small_part V eq_refl (somewhere user) _ eq_refl eq_refl
      (ex_intro _ tt (conj eq_refl eq_refl))) as [H _]. discriminate H.
  - intros V. destruct (hybrid_needs lowest small_part V eq_refl (somewhere user) _ eq_refl eq_refl
      (ex_intro _ tt (conj eq_refl eq_refl))) as [H _]. discriminate H.
Qed.

(** T.  An instruction that traps in supervisor mode, and is silent in user mode. *)
Definition call_supervisor (S : storage_state cell) : ending cell :=
  match M S with supervisor => Traps other_trap | user => Completes (advanced S) end.
Lemma call_supervisor_advances S T : call_supervisor S = Completes T -> T = advanced S.
Proof. unfold call_supervisor. destruct (M S); intros H; now inversion H. Qed.
Definition caller : third_generation := only call_supervisor (advancing_size _ call_supervisor_advances).

Theorem traps_needed :
  (forall i, sensitive caller i -> privileged caller i) /\ references_relocated caller /\ confined caller /\
  ~ virtual_machine_monitor caller.
Proof.
  repeat split.
  - now apply advancing_innocuous in H.
  - now apply advancing_innocuous in H.
  - intros i S T S' _ _ _ X. cbn in X. unfold call_supervisor in X. now destruct (@M cell S').
  - now rewrite (call_supervisor_advances S T H0).
  - now rewrite (call_supervisor_advances S T H0).
  - intros V. destruct (monitor_needs caller small_part V eq_refl (somewhere supervisor) _ eq_refl eq_refl
      (ex_intro _ tt (conj eq_refl eq_refl))) as [H _]. discriminate H.
Qed.

(** The same for Theorem 3: one that traps in the lowest location, and nowhere else. *)
Definition call_lowest (S : storage_state cell) : ending cell :=
  match l (R S) with 0 => Traps other_trap | _ => Completes (advanced S) end.
Lemma call_lowest_advances S T : call_lowest S = Completes T -> T = advanced S.
Proof. unfold call_lowest. destruct (l (R S)); intros H; now inversion H. Qed.
Definition low_caller : third_generation := only call_lowest (advancing_size _ call_lowest_advances).

Theorem user_traps_needed :
  (forall i, user_sensitive low_caller i -> privileged low_caller i) /\
  user_references_relocated low_caller /\ user_confined low_caller /\ ~ hybrid_monitor low_caller.
Proof.
  repeat split.
  - now apply user_sensitive_sensitive, advancing_innocuous in H.
  - now apply user_sensitive_sensitive, advancing_innocuous in H.
  - intros i S T S' _ _ _ _ X. cbn in X. unfold call_lowest in X. now destruct (l (@R cell S')).
  - now rewrite (call_lowest_advances S T H0).
  - now rewrite (call_lowest_advances S T H0).
  - intros V. destruct (hybrid_needs low_caller small_part V eq_refl (somewhere user) _ eq_refl eq_refl
      (ex_intro _ tt (conj eq_refl eq_refl))) as [H _]. discriminate H.
Qed.

(** K.  An instruction that writes the location just behind its bound: not sensitive, not confined. *)
Definition poke_behind (S : storage_state cell) : ending cell :=
  Completes (St (set (l (R S) + b (R S)) (Word user 6 6 6) (E S)) (M S) (P S + 1) (R S)).
Lemma poke_size (i : unit) S T : poke_behind S = Completes T -> length (E T) = length (E S).
Proof. intros H. inversion H. apply set_length. Qed.
Definition poker : third_generation := only poke_behind poke_size.

Lemma view_poked r x (e : list cell) : view r (set (l r + b r) x e) = view r e.
Proof.
  unfold view, set. destruct (skipn (l r + b r) e) as [| y rest] eqn:Rest; [reflexivity |].
  assert (l r + b r < length e) as In.
  { apply Nat.nle_gt. intros Out. now rewrite skipn_all2 in Rest. }
  rewrite <- (firstn_skipn (l r + b r) e) at 2.
  rewrite !skipn_app, !firstn_app, !skipn_length, !firstn_length.
  replace (b r - (Nat.min (l r + b r) (length e) - l r)) with 0 by lia. reflexivity.
Qed.

Lemma poke_innocuous i : innocuous poker i.
Proof.
  intros [(S & T & X & Ch) | [(S & T & S' & T' & [Hp Hv] & _ & X & X' & D) | (S & T & T' & X & X' & D)]];
    inversion X; subst T.
  - now destruct Ch.
  - inversion X'. subst T'. unfold differ in D. cbn [E P R word poker only] in *.
    rewrite !view_poked, Hp, Hv in D. now destruct D.
  - inversion X'. subst T'. unfold differ in D. cbn [E P R word poker only] in *. now destruct D.
Qed.

Theorem confinement_needed :
  (forall i, sensitive poker i -> privileged poker i) /\ references_relocated poker /\ traps_in_user_too poker /\
  ~ virtual_machine_monitor poker /\ ~ hybrid_monitor poker.
Proof.
  repeat split.
  - now apply poke_innocuous in H.
  - now apply poke_innocuous in H.
  - now intros i S T S' _ _ _.
  - now intros i S T S' _ _ _.
  - intros V. destruct (monitor_needs poker (Control (Word supervisor 3 0 6) [] [Word user 1 1 1]) V eq_refl
      (somewhere user) _ eq_refl eq_refl
      (ex_intro _ tt (conj eq_refl eq_refl))) as [H _]. discriminate H.
  - intros V. destruct (hybrid_needs poker (Control (Word supervisor 3 0 6) [] [Word user 1 1 1]) V eq_refl
      (somewhere user) _ eq_refl eq_refl
      (ex_intro _ tt (conj eq_refl eq_refl))) as [H _]. discriminate H.
Qed.

(** User control sensitive: an instruction that makes itself supervisor. *)
Definition rise (S : storage_state cell) : ending cell := Completes (St (E S) supervisor (P S + 1) (R S)).
Lemma rise_size (i : unit) S T : rise S = Completes T -> length (E T) = length (E S).
Proof. intros H. now inversion H. Qed.
Definition riser : third_generation := only rise rise_size.

Lemma riser_not_location i : ~ user_location_sensitive riser i.
Proof.
  intros (S & T & S' & T' & [Hp Hv] & _ & _ & X & X' & D). inversion X. subst T. inversion X'. subst T'.
  unfold differ in D. cbn [E P R word riser only] in *. rewrite Hp, Hv in D. now destruct D.
Qed.

Theorem user_control_needed :
  (forall i, user_location_sensitive riser i -> privileged riser i) /\ user_references_relocated riser /\
  user_traps_alike riser /\ user_confined riser /\ ~ hybrid_monitor riser.
Proof.
  repeat split.
  - now apply riser_not_location in H.
  - now apply riser_not_location in H.
  - now intros i S T S' _ _ _ _.
  - now intros i S T S' _ _ _ _.
  - now inversion H0.
  - now inversion H0.
  - intros V. destruct (hybrid_needs riser small_part V eq_refl (somewhere user) _ eq_refl eq_refl
      (ex_intro _ tt (conj eq_refl eq_refl))) as [H _]. discriminate H.
Qed.

(** Efficiency.  Innocuous and privileged: it traps in user mode for no reason, and so does not run
    directly, although the monitor works.  "Innocuous instructions run directly" is false of it. *)
Definition rest_in_supervisor (S : storage_state cell) : ending cell :=
  match M S with user => Traps other_trap | supervisor => Completes (advanced S) end.
Lemma rest_advances S T : rest_in_supervisor S = Completes T -> T = advanced S.
Proof. unfold rest_in_supervisor. destruct (M S); intros H; now inversion H. Qed.
Definition rester : third_generation := only rest_in_supervisor (advancing_size _ rest_advances).

Theorem needless_traps_matter :
  virtual_machine_monitor rester /\ (forall i, innocuous rester i) /\
  exists S p, completes (machine_of rester) S (advanced S) /\
    host_run (machine_of rester) (paper rester) (all_direct _) p 1 (on rester S p) <> on rester (advanced S) p.
Proof.
  assert (forall i S T, M S = user -> execute rester i S <> Completes T) as Never.
  { intros i S T U. cbn. unfold rest_in_supervisor. cbn in U. now rewrite U. }
  split; [apply theorem_1 | split; [apply advancing_innocuous |]].
  - intros i Sens. now apply advancing_innocuous in Sens.
  - intros i S T S' U X. now apply Never in X.
  - intros i S T S' U X. now apply Never in X.
  - intros i S T _ X. apply rest_advances in X. subst T. now split.
  - exists (somewhere supervisor), small_part. split; [now exists tt | discriminate].
Qed.

(** ** Premises of any machine *)

(** A2.  The hardware fetches another instruction than the guest's machine would: each instruction is
    faithful, and the run is not. *)
Definition two_fetches : machine := {|
  state := bool * nat; instruction := nat; cause := Empty_set;
  fetch := fun S => inr (if fst S then 2 else 1);
  perform := fun i S => Next (fst S, snd S + i);
  deliver := fun _ S => S
|}.

Definition flag : technique two_fetches := {|
  private := unit; notes := unit;
  image := fun (S : state two_fetches) (_ : unit) => (true, snd S) : state two_fetches;
  note := fun _ : state two_fetches => tt;
  ok := fun (S : state two_fetches) (_ : unit) => fst S = false;
  deprivileged := fun h : state two_fetches => fst h = true;
  owned_part := unit; owned := fun (_ : unit) (_ : state two_fetches) => tt;
  vector_part := unit; vector := fun _ : state two_fetches => tt; entry_of := fun _ : unit => tt;
  enter := fun _ (S : state two_fetches) => S;
  recover := fun _ (_ _ : unit) (h : state two_fetches) => (false, snd h) : state two_fetches;
  virtual_user := fun _ : unit => true
|}.

Theorem fetch_needed :
  A0_image two_fetches flag /\ A1_fidelity two_fetches flag /\ A3_closure two_fetches flag /\
  A4_entry_tells two_fetches flag /\ A5_vector two_fetches flag /\
  ~ agrees two_fetches flag (all_direct flag) tt (false, 0) 1.
Proof.
  repeat split.
  - intros i [c n] p T O _ X. inversion X. exists (c, n + i). cbn in *. now subst.
  - intros i [c n] p T O X. now inversion X.
  - intros [c n] p d T. destruct d.
  - intros [c n] p d T. destruct d.
  - intros (n & [[At B] | [(_ & [] & _) _]]).
    assert (n = 1) as -> by lia. discriminate At.
Qed.

(** A6.  Where an interrupt forgets the guest, no control program finds it again. *)
Theorem interrupt_must_tell (p : control cell) : psw_M (psw_in (entry p)) = supervisor ->
  forall recover_irq, ~ A6_interrupt_tells (machine_of paper_machine) (paper paper_machine)
    (fun _ => somewhere supervisor) recover_irq.
Proof.
  intros O recover_irq A6.
  pose proof (A6 (somewhere user) p O) as H. pose proof (A6 (St (E (somewhere user)) user 1 (Rel 0 3)) p O) as H'.
  cbn [note paper M R somewhere] in H, H'. rewrite H in H'. discriminate H'.
Qed.

(** A machine that counts, and takes interrupts once it has begun to; nothing traps. *)
Definition counts : machine := {|
  state := bool * (bool * nat); instruction := unit; cause := Empty_set;
  fetch := fun _ => inr tt;
  perform := fun _ S => Next (fst S, (true, Datatypes.S (snd (snd S))));
  deliver := fun _ S => S
|}.

Definition counted : technique counts := {|
  private := unit; notes := unit;
  image := fun (S : state counts) (_ : unit) => (true, snd S) : state counts;
  note := fun _ : state counts => tt;
  ok := fun (S : state counts) (_ : unit) => fst S = false;
  deprivileged := fun h : state counts => fst h = true;
  owned_part := unit; owned := fun (_ : unit) (_ : state counts) => tt;
  vector_part := unit; vector := fun _ : state counts => tt; entry_of := fun _ : unit => tt;
  enter := fun _ (S : state counts) => S;
  recover := fun _ (_ _ : unit) (h : state counts) => (false, snd h) : state counts;
  virtual_user := fun _ : unit => true
|}.

Definition counted_keeps : Prop :=
  A0_image counts counted /\ A1_fidelity counts counted /\ A2_fetch counts counted /\
  A4_entry_tells_apart counts counted /\ A4_image_tells counts counted eq /\
  A5_control counts counted /\ A5_vector counts counted.

Lemma counted_is_kept : counted_keeps.
Proof.
  repeat split.
  - intros i [c n] p T O _ X. inversion X. subst T. eexists. split; [reflexivity | now split].
  - now intros S p [] _ _.
  - intros S S' p c. destruct c.
  - intros [c n] [c' n'] p O O' _ Eq. cbn in *. congruence.
Qed.

(** A6 with two guests.  Where an interrupt forgets the guest, a control program may go on with another one. *)
Theorem interrupt_must_tell_apart :
  counted_keeps /\
  ~ monitored_with_interrupts counts counted (all_direct counted) (fun S => S)
      (fun _ => (true, (true, 0)) : state counts).
Proof.
  split; [exact counted_is_kept |]. intros [Agreed _ _].
  set (enter := fun _ : state counts => (true, (true, 0)) : state counts) in *.
  destruct (Agreed (false, (false, 0)) tt (fun _ => kept_event) 2
    (1, Plain counts counted (resume counts counted (all_direct counted) tt (false, (false, 7))))) as (n & _ & At).
  - eapply irq_goes; [eapply irq_goes; [apply irq_begins | apply may_take] |].
    exact (may_return counts counted (all_direct counted) tt (fun S => S) enter (fun _ => kept_event) 1 false
      (false, (false, 7)) eq_refl eq_refl).
  - intros n. induction n as [| n IH]; [reflexivity | exact IH].
  - destruct At as [At | [_ At]].
    + inversion At as [[En Eq]]. subst n. discriminate Eq.
    + inversion At as [G x _ _ (_ & [] & _) |].
Qed.

(** A6, noticing.  An interrupt waits, and the guest begins to take interrupts while the hardware runs on: the bare
    machine takes it, and the control program comes too late. *)
Theorem noticing_needed :
  counted_keeps /\ A6_interrupt_tells_apart counts counted (fun S => S) /\
  let takes := fun S : state counts => fst (snd S) in
  let interrupt := fun S : state counts => (fst S, (false, 100)) : state counts in
  ~ A6_interrupt_noticed counts counted takes /\
  ~ monitored_with_interrupts (held_machine counts takes interrupt) (held counts counted takes interrupt)
      (held_direct counts counted takes interrupt (all_direct counted)) (comes counts takes interrupt)
      (held_enter counts takes interrupt (fun S => S)).
Proof.
  split; [exact counted_is_kept |]. split; [now intros S S' p O O' N Eq |]. cbn zeta.
  set (takes := fun S : state counts => fst (snd S)).
  set (interrupt := fun S : state counts => (fst S, (false, 100)) : state counts). split.
  - intros Noticed. specialize (Noticed tt (false, (false, 0)) tt _ _ eq_refl eq_refl eq_refl eq_refl). discriminate.
  - intros [Agreed _ _].
    set (h := held_machine counts takes interrupt) in *. set (v := held counts counted takes interrupt) in *.
    set (events := fun n => match n with 0 => passed_event | _ => no_event end).
    destruct (Agreed (false, (false, 0), false) tt events 4
      (3, Plain h v (Running (m := h) (true, (true, 2), false), (tt, (true, false))))) as (n & _ & At).
    + eapply irq_goes; [eapply irq_goes; [eapply irq_goes; [eapply irq_goes; [apply irq_begins |] |] |] |].
      * apply may_take.
      * exact (may_return h v _ tt (comes counts takes interrupt) _ events 1 true (false, (false, 0), false)
          eq_refl eq_refl).
      * apply may_take.
      * apply may_take.
    + intros n. destruct (guest_run h (comes counts takes interrupt) events n (false, (false, 0), false)) eqn:E.
      revert s b E. induction n as [| n IH]; intros s b E; [now injection E as <- _ |].
      cbn [guest_run] in E.
      destruct (guest_run h (comes counts takes interrupt) events n (false, (false, 0), false)) as [s' b'] eqn:E'.
      specialize (IH s' b' eq_refl). cbn in IH |- *. destruct s' as [f [o k]]. cbn in IH. subst f.
      destruct (events n); [| now injection E as <- _ |].
      * unfold guest_step, step in E. cbn in E. destruct (due _ _ _); cbn in E; now injection E as <- _.
      * unfold guest_step, comes in E. cbn in E. unfold takes in E. cbn in E.
        destruct o; cbn in E; now injection E as <- _.
    + destruct At as [At | [_ At]].
      * inversion At as [[En Eq]]. subst n. discriminate Eq.
      * inversion At as [G x _ _ (_ & c & T & _ & Eq) |]. discriminate Eq.
Qed.
