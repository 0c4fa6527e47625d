(** * Runs

    What follows from the premises about whole runs, with the guests that run directly left open: all of
    them for Theorem 1, those in user mode for Theorem 3.  Nothing unrolls: each statement is for every
    number of steps, hence for infinite runs. *)

From Coq Require Import List Arith Lia.
Require Import Popek.Machine Popek.Premises Popek.Monitor.

Section Runs.
  Variable m : machine.
  Variable v : technique m.
  Variable direct : notes v -> bool.
  Variable p : private v.
  Implicit Types (S T : state m).

  Notation resume := (resume m v direct p).
  Notation host_step := (host_step m v direct p).
  Notation host_run := (host_run m v direct p).

  (** What is asked of one step: where the hardware completes a step from f(S), it commutes with f. *)
  Definition step_commutes : Prop :=
    forall S T, ok v S p -> direct (note v S) = true -> completes m (image v S p) T ->
      T = image v (step m S) p /\ note v (step m S) = note v S.

  Lemma fidelity_commutes : A2_fetch m v -> fidelity m v direct -> step_commutes.
  Proof.
    intros A2 A1 S T O D (i & F & X).
    destruct (A1 i S p T O D X) as (S' & X' & -> & N).
    assert (step m S = S') as -> by (apply step_completes; exists i; split; [now apply (A2 S p) | easy]).
    easy.
  Qed.

  Lemma closed_run S n : A3_closure m v -> ok v S p -> ok v (run m n S) p.
  Proof.
    intros [AfterNext AfterTrap] O. induction n as [| n IH]; [easy | simpl].
    destruct (completes_or_stops m (run m n S)) as [(T & C) | (c & T & C)].
    - rewrite (step_completes _ _ _ C). destruct C as (i & _ & X). eauto.
    - rewrite (step_stops _ _ _ _ C). eauto.
  Qed.

  (** How long the host takes for one step of the guest from S: two steps where the hardware stops and
      the control program interprets, else one. *)
  Definition takes S : nat :=
    if direct (note v S) then
      match fetch m (image v S p) with
      | inl _ => 2
      | inr i => match perform m i (image v S p) with Next _ => 1 | Trap _ _ => 2 end
      end
    else 1.

  Fixpoint hardware_steps (n : nat) S : nat :=
    match n with 0 => 0 | Datatypes.S n => hardware_steps n S + takes (run m n S) end.

  Lemma takes_bounds S : 1 <= takes S <= 2.
  Proof. unfold takes. destruct (direct (note v S)); [| lia].
    destruct (fetch m (image v S p)) as [| i]; [lia |]. destruct (perform m i (image v S p)); lia. Qed.

  Lemma hardware_steps_bounds n S : n <= hardware_steps n S <= 2 * n.
  Proof. induction n; simpl; [lia |]. pose proof (takes_bounds (run m n S)). lia. Qed.

  Lemma takes_completes S T : direct (note v S) = true -> completes m (image v S p) T -> takes S = 1.
  Proof. intros D (i & F & X). unfold takes. now rewrite D, F, X. Qed.

  Lemma takes_stops S c T : direct (note v S) = true -> stops m (image v S p) c T -> takes S = 2.
  Proof. unfold takes. intros -> [[F _] | (i & F & X)]; now rewrite F, ?X. Qed.

  Lemma takes_held S : direct (note v S) = false -> takes S = 1.
  Proof. unfold takes. now intros ->. Qed.

  (** The host is at the dispatcher's entry, having left the guest S. *)
  Definition at_entry_from S (x : host m v) : Prop :=
    direct (note v S) = true /\
    exists c T, stops m (image v S p) c T /\ x = (Entered c (enter v c T), note v S).

  Section Premises.
    Hypothesis Commutes : step_commutes.
    Hypothesis A4 : A4_entry_tells m v.

    (** One step of the guest. *)
    Lemma one_step S : ok v S p -> host_run (takes S) (resume S) = resume (step m S).
    Proof.
      intros O. destruct (direct (note v S)) eqn:D.
      - destruct (completes_or_stops m (image v S p)) as [(T & C) | (c & T & C)].
        + rewrite (takes_completes S T D C). cbn [Monitor.host_run].
          rewrite (resume_direct _ _ _ _ _ D), (host_completes _ _ _ _ _ _ _ C).
          destruct (Commutes _ _ O D C) as [-> N].
          rewrite resume_direct by now rewrite N. now rewrite N.
        + rewrite (takes_stops S c T D C). now apply interprets with (c := c) (T := T).
      - rewrite (takes_held S D). cbn [Monitor.host_run]. now rewrite (resume_held _ _ _ _ _ D).
    Qed.

    (** In between, if the step takes two. *)
    Lemma half_step S : takes S = 2 -> at_entry_from S (host_step (resume S)).
    Proof.
      intros Two. destruct (direct (note v S)) eqn:D; [| rewrite takes_held in Two by easy; lia].
      destruct (completes_or_stops m (image v S p)) as [(T & C) | (c & T & C)].
      - rewrite (takes_completes S T D C) in Two. lia.
      - split; [easy |]. exists c, T. split; [easy |].
        now rewrite (resume_direct _ _ _ _ _ D), (host_stops _ _ _ _ _ _ _ _ C).
    Qed.

    (** The guest's n-th state is reached: after [hardware_steps n S] steps, n <= … <= 2n. *)
    Theorem reaches S n :
      (forall j, j < n -> ok v (run m j S) p) ->
      host_run (hardware_steps n S) (resume S) = resume (run m n S).
    Proof.
      induction n as [| n IH]; intros O; [reflexivity |]. cbn [hardware_steps run].
      rewrite Nat.add_comm, host_run_add, IH by auto. apply one_step. auto.
    Qed.

    (** At every time h, the host is in the image of some state of the guest's run, or at the
        dispatcher's entry from it: nothing else ever happens, and n grows with h. *)
    Theorem nothing_else S h :
      (forall j, j < h -> ok v (run m j S) p) ->
      exists n,
        (host_run h (resume S) = resume (run m n S) /\ h = hardware_steps n S) \/
        (at_entry_from (run m n S) (host_run h (resume S)) /\
         h = hardware_steps n S + 1 /\ takes (run m n S) = 2).
    Proof.
      induction h as [| h IH]; intros O; [now exists 0; left |].
      destruct IH as (n & [[At Eq] | (At & Eq & Two)]); [auto | |].
      - pose proof (hardware_steps_bounds n S).
        destruct (Nat.eq_dec (takes (run m n S)) 1) as [One | NotOne].
        + exists (n + 1). left. rewrite Nat.add_1_r. cbn [hardware_steps]. split; [| lia].
          cbn [Monitor.host_run run]. rewrite At, <- one_step by (apply O; lia). now rewrite One.
        + pose proof (takes_bounds (run m n S)). exists n. right.
          split; [| lia].
          cbn [Monitor.host_run]. rewrite At. apply half_step. lia.
      - pose proof (hardware_steps_bounds n S).
        exists (n + 1). left. rewrite Nat.add_1_r. cbn [hardware_steps]. split; [| lia].
        cbn [run]. rewrite <- one_step by (apply O; lia). rewrite Two. cbn [Monitor.host_run].
        destruct At as (D & c & T & C & ->). rewrite (resume_direct _ _ _ _ _ D).
        now rewrite (host_stops _ _ _ _ _ _ _ _ C).
    Qed.
  End Premises.

  (** [agrees S h]: at time h the host, started with the guest in S, is where it should be. *)
  Definition agrees S h : Prop :=
    exists n,
      (host_run h (resume S) = resume (run m n S) /\ n <= h <= 2 * n) \/
      (at_entry_from (run m n S) (host_run h (resume S)) /\ n <= h <= 2 * n + 1).

  Corollary always_agrees S h :
    step_commutes -> A4_entry_tells m v -> (forall j, j < h -> ok v (run m j S) p) -> agrees S h.
  Proof.
    intros C A4 O. destruct (nothing_else C A4 S h O) as (n & H). exists n.
    pose proof (hardware_steps_bounds n S). destruct H as [[At Eq] | (At & Eq & _)];
      [left | right]; (split; [exact At | lia]).
  Qed.

  (** ** Without a function that recovers

      Where only A4's form with two copies is known, what the control program does at an entry is a
      relation: it goes on with a guest that could have led there.  There is such a guest, and all of them go on
      alike. *)
  Inductive may_step : host m v -> host m v -> Prop :=
  | may_run_on h n : may_step (Running h, n) (host_step (Running h, n))
  | may_interpret G n : may_step (Interpreting G, n) (resume (step m G))
  | may_resume c G T : ok v G p -> direct (note v G) = true -> stops m (image v G p) c T ->
      may_step (Entered c (enter v c T), note v G) (resume (step m G)).

  (** What is used of A4: only guests that run directly get to an entry. *)
  Definition direct_told_apart : Prop :=
    forall S S' c T T', ok v S p -> ok v S' p -> note v S = note v S' -> direct (note v S) = true ->
      stops m (image v S p) c T -> stops m (image v S' p) c T' ->
      enter v c T = enter v c T' -> step m S = step m S'.

  Lemma A4_direct : A4_entry_tells_apart m v -> direct_told_apart.
  Proof. intros A4 S S' c T T' O O' N _. now apply (A4 S S' p c T T'). Qed.

  Inductive may_run (x : host m v) : nat -> host m v -> Prop :=
  | may_start : may_run x 0 x
  | may_go h y z : may_run x h y -> may_step y z -> may_run x (Datatypes.S h) z.

  Theorem told_apart_agrees S :
    step_commutes -> direct_told_apart ->
    forall h x, may_run (resume S) h x -> (forall j, j <= h -> ok v (run m j S) p) ->
    exists n, ((x = resume (run m n S) /\ h = hardware_steps n S) \/
               (at_entry_from (run m n S) x /\ h = hardware_steps n S + 1 /\ takes (run m n S) = 2)) /\
              exists y, may_step x y.
  Proof.
    intros Commutes A4.
    assert (Going : forall G, ok v G p -> exists y, may_step (resume G) y).
    { intros G OG. unfold Monitor.resume. destruct (direct (note v G)); eexists; constructor. }
    assert (Leaving : forall G x, ok v G p -> at_entry_from G x -> exists y, may_step x y).
    { intros G x OG (D & c & T & C & ->). eexists. now apply may_resume with (T := T). }
    intros h x Path. induction Path as [| h y z Path IH Move]; intros O.
    - exists 0. split; [now left | apply Going, (O 0); lia].
    - destruct IH as (n & Where & _); [auto |]. pose proof (hardware_steps_bounds n S).
      assert (n <= h) as Bn by (destruct Where; lia).
      assert (ok v (run m (Datatypes.S n) S) p) as OnS by (apply O; lia).
      set (G := run m n S) in *. assert (ok v G p) as OG by (apply O; lia). destruct Where as [[-> Eq] | (At & Eq & Two)].
      + destruct (direct (note v G)) eqn:D.
        * rewrite (resume_direct _ _ _ _ _ D) in Move. inversion Move; subst.
          destruct (completes_or_stops m (image v G p)) as [(T & C) | (c & T & C)].
          -- exists (Datatypes.S n). rewrite (host_completes _ _ _ _ _ _ _ C).
             destruct (Commutes _ _ OG D C) as [-> N].
             assert ((Running (image v (step m G) p), note v G) = resume (step m G)) as ->
               by (rewrite resume_direct by (now rewrite N); now rewrite N).
             split; [left | now apply (Going (run m (Datatypes.S n) S))]. split; [reflexivity |]. cbn [hardware_steps].
             fold G. rewrite (takes_completes G _ D C). lia.
          -- exists n. rewrite (host_stops _ _ _ _ _ _ _ _ C).
             assert (at_entry_from G (Entered c (enter v c T), note v G)) as At by (split; [easy | eauto]).
             split; [right | now apply (Leaving G)]. fold G. rewrite (takes_stops G c T D C).
             split; [exact At | split; [lia | reflexivity]].
        * rewrite (resume_held _ _ _ _ _ D) in Move. inversion Move; subst.
          exists (Datatypes.S n). split; [left | now apply (Going (run m (Datatypes.S n) S))]. split; [reflexivity |].
          cbn [hardware_steps]. fold G. rewrite (takes_held G D). lia.
      + destruct At as (D & c & T & C & ->). inversion Move as [| | c' G' T' OG' D' C' Same1 Same2]; subst.
        assert (step m G' = step m G) as -> by (apply (A4 G' G c T' T); congruence).
        exists (Datatypes.S n). split; [left | now apply (Going (run m (Datatypes.S n) S))]. split; [reflexivity |].
        cbn [hardware_steps]. fold G. lia.
  Qed.

  (** Exactness: agreement at every time needs what [step_commutes] says. *)
  Lemma commutes_if_agrees :
    (forall S, ok v S p -> forall h, agrees S h) -> step_commutes.
  Proof.
    intros Agree S T O D C.
    destruct (Agree S O 1) as (n & [[At B] | [At _]]).
    - assert (n = 1) as -> by lia. cbn [Monitor.host_run run] in At.
      rewrite (resume_direct _ _ _ _ _ D), (host_completes _ _ _ _ _ _ _ C) in At.
      unfold Monitor.resume in At. destruct (direct (note v (step m S))); now inversion At.
    - cbn [Monitor.host_run] in At.
      rewrite (resume_direct _ _ _ _ _ D), (host_completes _ _ _ _ _ _ _ C) in At.
      destruct At as (_ & c & T' & _ & Eq). discriminate Eq.
  Qed.

  (** Resource control over the whole run. *)
  Definition controlled S (x : host m v) : Prop :=
    match x with
    | (Running h, n) => deprivileged v h /\ owned v p h = owned v p (image v S p) /\ vector v h = entry_of v p
    | _ => True  (* the control program has control *)
    end.

  (** The same without the guest's first state: what is owned is what the notes say. *)
  Definition controlled_by_notes (x : host m v) : Prop :=
    match x with
    | (Running h, n) =>
        deprivileged v h /\ vector v h = entry_of v p /\
        forall G, ok v G p -> note v G = n -> owned v p h = owned v p (image v G p)
    | _ => True
    end.

  Theorem resources_controlled S h :
    A0_image m v -> A5_vector m v -> step_commutes -> A4_entry_tells m v ->
    (forall j, j <= h -> ok v (run m j S) p) ->
    exists n, n <= h /\ controlled (run m n S) (host_run h (resume S)).
  Proof.
    intros A0 A5 C A4 O. destruct (always_agrees S h C A4) as (n & H); [auto with arith |].
    exists n. destruct H as [[-> B] | [(D & c & T & _ & ->) B]]; (split; [lia |]); [| exact I].
    unfold Monitor.resume. destruct (direct (note v (run m n S))); [| exact I]. cbn.
    repeat split; [apply A0 | apply A5]; apply O; lia.
  Qed.

  (** While nothing is interpreted, the control program's part stays as it is: it is changed by the
      control program alone, and then to what its notes say. *)
  Lemma owned_while_running S n :
    A5_control m v -> step_commutes -> (forall j, j <= n -> ok v (run m j S) p) ->
    (forall j, j < n -> direct (note v (run m j S)) = true /\ exists T, completes m (image v (run m j S) p) T) ->
    owned v p (image v (run m n S) p) = owned v p (image v S p).
  Proof.
    intros A5 C O Direct.
    assert (note v (run m n S) = note v S) as N.
    { induction n as [| n IH]; [reflexivity | cbn [run]].
      destruct (Direct n) as (D & T & X); [lia |].
      destruct (C _ _ (O n (Nat.le_succ_diag_r n)) D X) as [_ ->]. apply IH; auto with arith. }
    apply A5; [apply O; lia | apply (O 0); lia | exact N].
  Qed.

  (** Efficiency: what completes on the guest and has no needless traps takes one step of the hardware,
      and nothing of the control program. *)
  Theorem runs_directly S i S' :
    ok v S p -> direct (note v S) = true -> A8_fetch m v -> A8_efficiency m v i ->
    fetch m S = inr i -> perform m i S = Next S' -> takes S = 1.
  Proof.
    intros O D F8 A8 F X. destruct (A8 S p S' O X) as (T & X').
    apply (takes_completes S T D). exists i. split; [now apply F8 | exact X'].
  Qed.

  Corollary efficient_run S n :
    A8_fetch m v -> (forall j, j < n -> ok v (run m j S) p /\ direct (note v (run m j S)) = true /\
      exists i S', A8_efficiency m v i /\ fetch m (run m j S) = inr i /\ perform m i (run m j S) = Next S') ->
    hardware_steps n S = n.
  Proof.
    intros F8 H. induction n as [| n IH]; [reflexivity | cbn [hardware_steps]].
    rewrite IH by auto. destruct (H n) as (O & D & i & S' & A8 & F & X); [lia |].
    rewrite (runs_directly _ i S'); auto. lia.
  Qed.
End Runs.
