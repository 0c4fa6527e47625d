(** * Theorem 3

    "A hybrid virtual machine monitor may be constructed for any conventional third generation machine in
    which the set of user sensitive instructions are a subset of the set of privileged instructions."

    The hybrid monitor interprets everything while the guest is in its own supervisor mode, and runs the
    guest directly in its user mode.  So nothing is asked of runs in virtual supervisor mode. *)

From Coq Require Import List Arith Lia.
Require Import Popek.Machine Popek.ThirdGeneration Popek.Classes Popek.Map.
Require Import Popek.Premises Popek.Monitor Popek.Runs Popek.Theorem1.
Import ListNotations.

(** From the premises: A10 takes the place of A1. *)
Theorem theorem_3_from_premises m v :
  A0_image m v -> A10_hybrid m v -> A2_fetch m v -> A4_entry_tells m v -> A5_vector m v ->
  monitored m v (virtual_user v).
Proof. intros A0 A10. now apply monitored_from_premises. Qed.

(** And as a machine is asked them. *)
Theorem theorem_3_told_apart m v :
  A0_image m v -> A10_hybrid m v -> A2_fetch m v -> A4_entry_tells_apart m v ->
  A5_control m v -> A5_vector m v -> monitored_told_apart m v (virtual_user v).
Proof. intros A0 A10. now apply told_apart_from_premises. Qed.

Section Classes.
  Variable t : third_generation.
  Notation state := (storage_state (word t)).
  Notation m := (machine_of t).
  Notation paper := (paper t).

  (** Lemma 1 for a guest in user mode: both runs are in user mode, so only what is user sensitive can
      tell them apart. *)
  Lemma user_lemma_1 i S p h :
    user_references_relocated t -> user_traps_alike t -> user_confined t -> ~ user_sensitive t i ->
    M S = user -> execute t i (f t S p) = Completes h ->
    exists S', execute t i S = Completes S' /\ h = f t S' p /\ M S' = M S /\ R S' = R S.
  Proof.
    intros Refs Traps Conf Inn U X.
    assert (alike t (f t S p) S) as A by (split; [reflexivity | apply view_f]).
    destruct (neither_traps t i S) as (S1 & X1).
    { now apply (Refs i (f t S p) h S). }
    { now apply (Traps i (f t S p) h S). }
    assert (~ user_control_sensitive t i) as NC by (intros H; apply Inn; now left).
    destruct (user_keeps_control t i S S1 NC U X1) as [MS RS].
    destruct (user_keeps_control t i (f t S p) h NC eq_refl X) as [Mh Rh].
    destruct (not_differ t S S1 (f t S p) h) as [V Pc].
    { intros D. apply Inn. right. exists S, S1, (f t S p), h.
      split; [split; [reflexivity | exact (eq_sym (view_f t S p))] | now repeat split]. }
    exists S1. split; [exact X1 |]. split; [| auto].
    assert (E h = low t S1 p ++ E S1 ++ behind p) as Eh.
    { apply (storage_of_step t S S1 h p); auto.
      - exact (keeps_size t i S S1 X1).
      - now apply (Conf i S S1).
      - now apply (Conf i (f t S p) h). }
    unfold f at 1. rewrite (keeps_size t i S S1 X1), RS, Pc, <- Eh.
    cbn [f M R] in Mh, Rh. rewrite <- Mh, <- Rh. now destruct h.
  Qed.

  Theorem user_classes_imply_A10 :
    (forall i, user_sensitive t i -> privileged t i) ->
    user_references_relocated t -> user_traps_alike t -> user_confined t -> A10_hybrid m paper.
  Proof.
    intros Sub Refs Traps Conf i S p h O D X. apply perform_next in X. cbn [image Theorem1.paper] in X.
    assert (M S = user) as U by (cbn in D; now destruct (M S)).
    destruct (user_lemma_1 i S p h) as (S' & X' & -> & MS & RS); auto.
    - intros Sens. destruct (Sub i Sens) as [Never _]. now apply (Never (f t S p) h).
    - exists S'. split; [now apply perform_next |]. split; [easy |]. cbn. now rewrite MS, RS.
  Qed.

  (** The hybrid host: a guest in user mode is in place, one in supervisor mode is interpreted. *)
  Definition hybrid S p : host m paper := resume m paper (virtual_user paper) p S.

  Record hybrid_monitor : Prop := {
    hybrid_one_one : forall S S' p, f t S p = f t S' p -> S = S';
    hybrid_reached : forall S p n, psw_M (to_psw t (entry p)) = supervisor ->
      exists h, n <= h <= 2 * n /\
        host_run m paper (virtual_user paper) p h (hybrid S p) = hybrid (run m n S) p;
    hybrid_nothing_else : forall S p h, psw_M (to_psw t (entry p)) = supervisor ->
      exists n,
        (n <= h <= 2 * n /\ host_run m paper (virtual_user paper) p h (hybrid S p) = hybrid (run m n S) p) \/
        (n <= h <= 2 * n + 1 /\ M (run m n S) = user /\
         exists c, host_run m paper (virtual_user paper) p h (hybrid S p) =
           (Entered (m := m) c (exchange t (f t (run m n S) p)), (M (run m n S), R (run m n S))));
    hybrid_control : forall S p h, psw_M (to_psw t (entry p)) = supervisor ->
      safe_at t p (length (E S)) (host_run m paper (virtual_user paper) p h (hybrid S p));
    hybrid_efficiency : forall S p i S', psw_M (to_psw t (entry p)) = supervisor -> M S = user ->
      no_needless_traps t i -> fetch m S = inr i -> execute t i S = Completes S' ->
      host_run m paper (virtual_user paper) p 1 (hybrid S p) = hybrid S' p
  }.

  Theorem hybrid_from_A10 : A10_hybrid m paper -> hybrid_monitor.
  Proof.
    intros A10.
    destruct (theorem_3_from_premises m paper (paper_A0 t) A10 (paper_A2 t) (paper_A4 t) (paper_A5_vector t))
      as [Reached Agreed _ _].
    split.
    - apply f_one_one.
    - intros S p n O. now apply Reached.
    - intros S p h O. destruct (Agreed S p h) as (n & [[At B] | [(D & c & T & X & At) B]]); [easy | |];
        exists n; [left; now split | right; split; [lia |]].
      apply stops_in in X. subst T. split; [| exists c; exact At].
      cbn in D. now destruct (M (run m n S)).
    - intros S p h O. exact (safe_if_agrees t _ S p h (Agreed S p h (fun _ _ => O))).
    - intros S p i S' O U NN F X.
      assert (virtual_user paper (note paper S) = true) as D by (cbn; now rewrite U).
      assert (takes m paper (virtual_user paper) p S = 1) as One.
      { apply (runs_directly m paper _ p S i S'); auto.
        - apply paper_A8_fetch.
        - now apply no_needless_traps_A8.
        - now apply perform_next. }
      assert (step m S = S') as Step.
      { apply step_completes. exists i. split; [exact F | now apply perform_next]. }
      pose proof (one_step m paper (virtual_user paper) p
        (fidelity_commutes _ _ _ _ (paper_A2 t) A10) (paper_A4 t) S O) as H.
      rewrite One, Step in H. exact H.
  Qed.

  Lemma hybrid_needs p : hybrid_monitor -> psw_M (to_psw t (entry p)) = supervisor ->
    step_commutes m paper (virtual_user paper) p.
  Proof.
    intros V O S T _ D C.
    assert (hybrid S p = (Running (m := m) (f t S p), (M S, R S))) as Here by exact (resume_direct _ _ _ _ S D).
    assert (host_run m paper (virtual_user paper) p 1 (hybrid S p) = (Running (m := m) T, (M S, R S))) as Ran
      by (rewrite Here; exact (host_completes m paper (virtual_user paper) p _ _ (M S, R S) C)).
    destruct (hybrid_nothing_else V S p 1 O) as (n & [[B At] | [_ (_ & c & At)]]); rewrite Ran in At.
    - assert (n = 1) as -> by lia. cbn [run] in At. unfold hybrid, resume in At.
      destruct (virtual_user paper (note paper (step m S))); [| discriminate At].
      injection At as ET EM ER. split; [exact ET | cbn; now rewrite EM, ER].
    - discriminate At.
  Qed.

  (** Theorem 3. *)
  Theorem theorem_3 :
    (forall i, user_sensitive t i -> privileged t i) ->
    user_references_relocated t -> user_traps_alike t -> user_confined t -> hybrid_monitor.
  Proof. intros Sub Refs Traps Conf. apply hybrid_from_A10. now apply user_classes_imply_A10. Qed.
End Classes.
